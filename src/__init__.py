"""Asgard: one REST call with a training script in, a live inference URL out."""
