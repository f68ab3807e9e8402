"""The client of registries: endpoints, authentication, manifests, blobs; OCI distribution-spec 1.1."""
