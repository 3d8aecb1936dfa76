"""Entry point of the program for the `pulumi` CLI, from the project at the root of the repository."""

from asgard.stacks.program import program

program()
