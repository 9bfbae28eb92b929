-- An animal clinic. SQLite dialect. Written for adit.
PRAGMA foreign_keys = ON;

CREATE TABLE species (code TEXT PRIMARY KEY, common_name TEXT NOT NULL) WITHOUT ROWID;

CREATE TABLE owners (
  owner_id INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL,
  phone TEXT,
  email TEXT UNIQUE
);

CREATE TABLE animals (
  animal_id INTEGER PRIMARY KEY AUTOINCREMENT,
  owner_id INTEGER NOT NULL REFERENCES owners(owner_id),
  species_code TEXT NOT NULL REFERENCES species(code),
  mother_id INTEGER REFERENCES animals(animal_id),
  name TEXT NOT NULL,
  born DATE,
  chip_number TEXT UNIQUE
);

CREATE TABLE vets (
  vet_id INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  licence TEXT NOT NULL UNIQUE
);

CREATE TABLE visits (
  visit_id INTEGER PRIMARY KEY,
  animal_id INTEGER NOT NULL,
  vet_id INTEGER NOT NULL,
  started_at TEXT NOT NULL DEFAULT (datetime('now')),
  weight_kg REAL,
  reason TEXT,
  FOREIGN KEY (animal_id) REFERENCES animals(animal_id),
  FOREIGN KEY (vet_id) REFERENCES vets(vet_id)
);

CREATE TABLE treatments (code TEXT PRIMARY KEY, label TEXT NOT NULL, price NUMERIC NOT NULL);

CREATE TABLE visit_treatments (
  visit_id INTEGER NOT NULL REFERENCES visits ON DELETE CASCADE,
  treatment_code TEXT NOT NULL REFERENCES treatments,
  amount INTEGER NOT NULL DEFAULT 1,
  PRIMARY KEY (visit_id, treatment_code)
);
