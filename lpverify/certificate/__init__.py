"""Certificates: the file format and two checkers that share no arithmetic with the engines.

``container``, ``graph``, ``claim``, ``proof`` and ``exact*`` need the standard library only; ``rigorous*``
need numpy. None imports torch or a solver. Nothing is imported here, so that the exact checker
runs on a machine that has nothing but Python: ``python -m lpverify.certificate.exact RUN/``.
"""
