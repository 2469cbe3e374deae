"""Radii: how far an input may move, certified from below, attacked from above, and exactly.

    radii        the sweep of ``lpverify radius``
    search       the search for the largest certified radius by a solver-backed method
    attack       the nearest counterexample that attacks find
    distortion   the exact least distortion, by a MILP
"""
