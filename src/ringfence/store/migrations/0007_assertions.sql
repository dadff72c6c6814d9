-- What every change of an organisation must keep true, in the order in which it was given.
CREATE TABLE assertion (
    organisation TEXT NOT NULL REFERENCES organisation (id),
    place INTEGER NOT NULL,
    text TEXT NOT NULL,
    PRIMARY KEY (organisation, place)
) STRICT, WITHOUT ROWID;
