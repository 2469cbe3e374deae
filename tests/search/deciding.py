"""Deciding one claim with its evidence checked again, as the tests of complete verification need it."""

from __future__ import annotations

import time
from typing import Any

import pytest

from lpverify.certificate import exact, rigorous
from lpverify.certificate.claim import Claim
from lpverify.certificate.proof import decode, decode_witness
from lpverify.network import Network
from lpverify.result import Verdict
from lpverify.search.route import Route
from lpverify.search.solve import Found, solve
from lpverify.session import Session
from lpverify.settings import Settings

SETTINGS = Settings("0", workers=0)


def decide(
    network: Network,
    claim: Claim,
    *,
    seconds: float = 60.0,
    route: Route | None = None,
    exactly: bool = False,
    settings: Settings = SETTINGS,
    **options: Any,
) -> Found:
    """What ``solve`` finds; its evidence, written and read again, is accepted by the checkers.

    Args:
        route: taken whatever the claim's shape.
        exactly: have the exact checker read the certificate too (it reads every witness).
    """
    with Session(network, settings) as session, pytest.MonkeyPatch.context() as patch:
        if route is not None:
            patch.setattr("lpverify.search.solve.route", lambda *shape: route)
        found = solve(session, claim, deadline=time.perf_counter() + seconds, **options)
        check_evidence(session, claim, found, exactly)
    return found


def check_evidence(session: Session, claim: Claim, found: Found, exactly: bool = True) -> None:
    """Every verdict has its evidence, and no other."""
    assert (found.certificate is not None) == (found.verdict is Verdict.VERIFIED)
    assert (found.counterexample is not None) == (found.verdict is Verdict.FALSIFIED)
    assert bool(found.reason) == (found.verdict is Verdict.UNKNOWN) or found.counterexample is not None
    if found.certificate is not None:
        proof = decode(found.certificate)
        assert proof.claim == claim and proof.encode() == found.certificate
        (outcome,) = rigorous.check(session.checker, [proof])
        assert outcome.accepted, outcome.message
        assert outcome.leaves == found.leaves
        if exactly:
            again = exact.check(session.plain, proof)
            assert again.accepted and again.leaves == found.leaves, again.message
    if found.counterexample is not None:
        witness = decode_witness(found.counterexample.witness(claim, session.plain.sha256).encode())
        accepted = exact.check_witness(session.plain, witness)
        assert accepted.accepted, accepted.message
