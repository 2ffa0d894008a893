"""What runs in the environments of the peers; the pinned packages of each are in `<peer>.txt`."""
