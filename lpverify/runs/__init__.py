"""Runs: what is kept of many examples on disk, and judged again from there.

    folder                          a run's folder: results, evidence, summary
    store, lock                     its database, and who may write it
    summary                         what is counted over results
    audit                           ``lpverify check``: all evidence judged again from the files alone
    results_table                   the lines exported
    cascade_folder, cascade_audit   the same two for cascades
"""
