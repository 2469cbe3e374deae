"""A run folder, or several, as one self-contained page of HTML.

    fields       values of a run's files, whatever their types
    rows         the table of examples
    counts       by method, by reason, of radii
    evidence     what the checker finds now
    pictures     counterexamples as small images, or as numbers
    run          ``RunReport``: all that the page says about a run
    content      from a run folder to its report
    comparison   of several runs: verdicts that differ, contradictions
    words        questions, settings and verdicts in words
    svg          matplotlib figures as text for the page, light and dark
    figures      the page's figures
    page         from reports to HTML, through the files of ``templates``

Nothing above the command line imports this package. A page is a function of the run folders' files and of what the
checker says of them: no date, no path but the given ones, equal bytes for equal runs.
"""
