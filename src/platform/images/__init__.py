"""Images of bundles: assembled here as OCI layers, without a daemon, and pushed over the registry's API.

Equal inputs give an equal digest, on any machine: entries are sorted, times and owners fixed, byte code is compiled by
the base image's own Python. Layers, rarest change first: the base image's, environment, server, model.
"""
