// Draws /openapi.json: operations by tag, then schemas. Text only, never markup.
"use strict";

function el(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
  for (const child of children) node.append(child);
  return node;
}

// A schema in one line; named ones as links.
function type(schema) {
  if (!schema) return el("span", {}, "any");
  if (schema.$ref) {
    const name = schema.$ref.split("/").at(-1);
    return el("a", { href: `#schema-${name}` }, name);
  }
  const options = schema.oneOf || schema.anyOf || schema.allOf;
  if (options) {
    const node = el("span", {});
    options.forEach((option, at) => node.append(at > 0 ? " | " : "", type(option)));
    return node;
  }
  if (schema.enum) return el("span", {}, schema.enum.map((value) => JSON.stringify(value)).join(" | "));
  const kinds = [].concat(schema.type || "any");
  if (kinds.includes("array")) return el("span", {}, "list of ", type(schema.items));
  if (schema.additionalProperties && typeof schema.additionalProperties === "object") {
    return el("span", {}, "map of ", type(schema.additionalProperties));
  }
  return el("span", {}, kinds.join(" | ") + (schema.format ? ` (${schema.format})` : ""));
}

function operation(path, method, op) {
  const box = el(
    "details",
    { class: "operation" },
    el(
      "summary",
      {},
      el("code", { class: "method" }, method.toUpperCase()),
      " ",
      el("code", {}, path),
      ` ${op.summary || ""}`,
    ),
  );
  if (op.description) box.append(el("p", {}, op.description));
  const scopes = (op.security || []).flatMap((one) => Object.values(one).flat());
  if (scopes.length > 0) box.append(el("p", {}, "Needs a key with scope ", el("code", {}, scopes.join(", ")), "."));
  if (op.parameters && op.parameters.length > 0) {
    const body = el("tbody", {});
    for (const p of op.parameters) {
      body.append(
        el(
          "tr",
          {},
          el("td", {}, el("code", {}, p.name)),
          el("td", {}, p.in + (p.required ? ", required" : "")),
          el("td", {}, type(p.schema)),
          el("td", {}, p.description || ""),
        ),
      );
    }
    box.append(el("table", {}, body));
  }
  const contents = (title, content) => {
    for (const [media, value] of Object.entries(content || {})) {
      box.append(el("p", {}, `${title} `, el("code", {}, media), ": ", type(value.schema)));
    }
  };
  if (op.requestBody) contents("Body", op.requestBody.content);
  for (const [status, response] of Object.entries(op.responses || {})) {
    box.append(el("p", {}, el("strong", {}, status), ` ${response.description || ""}`));
    contents("", response.content);
  }
  return box;
}

function schemaBox(name, schema) {
  const box = el("section", { id: `schema-${name}` }, el("h3", {}, name));
  if (schema.description) box.append(el("p", {}, schema.description));
  if (!schema.properties) {
    box.append(el("p", {}, type(schema)));
    return box;
  }
  const body = el("tbody", {});
  for (const [field, value] of Object.entries(schema.properties)) {
    const required = (schema.required || []).includes(field) ? "required" : "";
    body.append(
      el(
        "tr",
        {},
        el("td", {}, el("code", {}, field)),
        el("td", {}, type(value)),
        el("td", {}, required),
        el("td", {}, value.description || ""),
      ),
    );
  }
  box.append(el("table", {}, body));
  return box;
}

async function draw() {
  const api = await (await fetch("/openapi.json")).json();
  const byTag = new Map();
  for (const [path, item] of Object.entries(api.paths)) {
    for (const method of ["get", "post", "put", "patch", "delete"]) {
      if (!item[method]) continue;
      const tag = (item[method].tags || ["other"])[0];
      if (!byTag.has(tag)) byTag.set(tag, []);
      byTag.get(tag).push(operation(path, method, item[method]));
    }
  }
  const operations = document.getElementById("operations");
  operations.replaceChildren();
  for (const [tag, boxes] of byTag) operations.append(el("h3", {}, tag), ...boxes);
  const schemas = Object.entries(api.components.schemas).map(([name, schema]) => schemaBox(name, schema));
  document.getElementById("schemas").replaceChildren(...schemas);
  if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

draw().catch((error) =>
  document.getElementById("operations").replaceChildren(el("p", { class: "bad" }, String(error))),
);
