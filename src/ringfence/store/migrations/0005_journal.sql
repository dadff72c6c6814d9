-- What each commit made true, in order, for the other servers of a shared database; only the newest are kept, and an
-- embedded database keeps none. ``author`` is the server that committed.
CREATE TABLE journal (
    number INTEGER PRIMARY KEY,
    author TEXT NOT NULL,
    entries TEXT NOT NULL
) STRICT;
