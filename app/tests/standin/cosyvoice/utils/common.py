"""A stand-in for upstream's module of this name."""

import random


def set_all_random_seed(seed):
    random.seed(seed)
