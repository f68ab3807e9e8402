"""The version of this runtime and of the OCI runtime specification that it implements."""

VERSION = "0.1.0"
OCI_VERSION = "1.2.0"
