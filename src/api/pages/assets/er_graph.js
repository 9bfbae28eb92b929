// From a job's JSON export to entities and relationships: what the diagram shows, and nothing of how.

import { percent, plural } from "./format.js";

/**
 * Entities in the order of the export, each with its attributes; relationships whose ends are entities.
 * `many` says that many `from` belong to one `to`; `null`: it is not known.
 */
export function erGraph(model) {
  const byConcept = new Map(model.concepts.map((concept) => [concept.name, []]));
  const references = new Set();
  for (const key of model.relationships) {
    for (const column of key.from_columns) references.add(`${key.from_table}\n${column}`);
  }
  for (const attribute of model.attributes) {
    byConcept.get(attribute.concept)?.push({
      name: attribute.name,
      type: attribute.type,
      description: attribute.description,
      isIdentifier: attribute.identifier,
      isUnique: attribute.unique,
      isReference: references.has(`${attribute.source_table}\n${attribute.source_column}`),
      isRequired: attribute.required,
      sure: sureInWords(attribute),
      isForReview: attribute.review === true,
      column: `${attribute.source_table}.${attribute.source_column}${attribute.data_type ? ` ${attribute.data_type}` : ""}`,
    });
  }
  const at = new Map(model.concepts.map((concept, place) => [concept.name, place]));
  const entities = model.concepts.map((concept) => ({
    name: concept.name,
    kind: concept.kind,
    description: concept.description,
    source: concept.source,
    tables: concept.source_tables,
    attributes: byConcept.get(concept.name),
    sure: sureInWords(concept),
    isForReview: concept.review === true,
  }));
  const relationships = model.relationships
    .filter((key) => at.has(key.from) && at.has(key.to))
    .map((key) => ({
      name: key.name,
      description: key.description,
      from: at.get(key.from),
      to: at.get(key.to),
      many: key.cardinality === "unknown" ? null : key.cardinality === "many_to_one",
      isRequired: key.required,
      isInferred: key.source === "inferred",
      sure: sureInWords(key),
      isForReview: key.review === true,
    }));
  return { entities, relationships };
}

/** How sure the model was of a fact; empty where it judged nothing. */
export function sureInWords(fact) {
  const sure = fact.confidence === null ? "" : `${percent(fact.confidence)} sure`;
  return fact.review ? `${sure || "not judged"}, for review` : sure;
}

/** "many Order belong to one Customer", for those who do not see the lines. */
export function relationshipInWords({ entities }, key) {
  const [from, to] = [entities[key.from].name, entities[key.to].name];
  const end = key.isRequired ? "exactly one" : "at most one";
  const link =
    key.many === null
      ? `${from} is linked to ${to}`
      : key.many
        ? `many ${from} to ${end} ${to}`
        : `one ${from} to ${end} ${to}`;
  return `${link}${key.isInferred ? ", found by the model" : ""}`;
}

export function sizeInWords({ entities, relationships }) {
  return `${plural(entities.length, "entity", "entities")}, ${plural(relationships.length, "relationship")}`;
}
