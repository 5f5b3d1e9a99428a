"""What happened to every query: tables, one self-contained HTML page, and a look at one query.

``build.run`` writes them, ``show`` follows one query through the stages, ``summary`` gives the
figures back for a terminal.
"""
