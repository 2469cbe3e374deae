"""Certificates: the file format and two checkers that share no arithmetic with the engines.

``container``, ``fields``, ``graph``, ``claim``, ``proof``, ``tree`` and ``exact*`` (``exact_tree`` checks the leaves of
split trees) need the standard library only; ``rigorous*`` need numpy. None imports torch or a solver. Nothing is
imported here, so that the exact checker runs on a machine that has nothing but Python:
``python -m lpverify.certificate.exact RUN/``.
"""
