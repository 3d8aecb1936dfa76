"""The native Pulumi provider `asgard`: Asgard's own resources."""
