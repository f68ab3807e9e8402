"""Engine API JSON shapes as frozen structs: what Docker's clients send and what they are answered."""
