// A form made from a JSON Schema: fields for what has a simple type, JSON for the rest.
import { html } from "./core.js";

// What a field's text means to its schema. Throws a sentence.
export function valueFrom(schema, typed) {
  const types = [schema.type ?? "json"].flat();
  if (types.includes("string") && !types.includes("object")) return typed;
  if (types.includes("number") || types.includes("integer")) {
    const number = Number(typed);
    if (typed.trim() === "" || Number.isNaN(number)) throw new Error("must be a number");
    if (!types.includes("number") && !Number.isInteger(number)) throw new Error("must be a whole number");
    return number;
  }
  try {
    return JSON.parse(typed);
  } catch {
    throw new Error("must be JSON");
  }
}

export const textFrom = (value) => (value === undefined ? "" : typeof value === "string" ? value : JSON.stringify(value));

// The schema behind a $ref of the same document, and the one of several that is not null.
export function resolved(schema, root) {
  const found = schema?.$ref?.startsWith("#/") ? schema.$ref.slice(2).split("/").reduce((node, name) => node?.[name], root) : schema;
  const choices = found?.anyOf ?? found?.oneOf;
  const only = choices?.filter((choice) => choice.type !== "null");
  return only?.length === 1 ? { ...found, ...resolved(only[0], root), description: found.description } : found ?? {};
}

export const propertiesOf = (schema) => Object.entries(schema?.properties ?? {}).map(([name, property]) => ({
  name, schema: resolved(property, schema), isRequired: schema.required?.includes(name) ?? false }));

export const typeOf = (schema) => {
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  const type = [schema.type ?? "any"].flat().join(" | ");
  return type === "array" && schema.items?.type ? `${schema.items.type}[]` : type;
};

// `fields`: name -> text; `mistakes`: name -> sentence.
export function Form({ schema, fields, mistakes, onInput }) {
  return html`<div class="form">${propertiesOf(schema).map(({ name, schema: property, isRequired }) => html`
    <${Field} key=${name} name=${name} schema=${property} isRequired=${isRequired} typed=${fields[name] ?? ""} mistake=${mistakes[name]} onInput=${(typed) => onInput(name, typed)} />`)}</div>`;
}

function Field({ name, schema, isRequired, typed, mistake, onInput }) {
  const id = `field-${name}`;
  const facts = { id, "aria-invalid": mistake ? "true" : undefined, "aria-describedby": `${id}-note` };
  const first = schema.default === undefined || schema.default === null ? "" : textFrom(schema.default);
  let input;
  if (schema.enum || schema.type === "boolean") {
    const choices = schema.enum ?? [true, false];
    input = html`<select ...${facts} value=${typed} onChange=${(event) => onInput(event.target.value)}>
      <option value="">${first ? `default: ${first}` : "–"}</option>${choices.map((choice) => html`<option key=${choice} value=${textFrom(choice)}>${textFrom(choice)}</option>`)}</select>`;
  } else if (["object", "array"].includes([schema.type].flat()[0]) || schema.type === undefined) {
    input = html`<textarea ...${facts} rows="2" placeholder=${first || "JSON"} value=${typed} onInput=${(event) => onInput(event.target.value)} />`;
  } else {
    const isNumber = ["number", "integer"].includes([schema.type].flat()[0]);
    input = html`<input ...${facts} type="text" inputmode=${isNumber ? "decimal" : undefined} placeholder=${first} value=${typed} onInput=${(event) => onInput(event.target.value)} />`;
  }
  return html`<div class="field"><label for=${id}>${name}${isRequired && html`<span class="needed" title="required"> *</span>`}</label>
    <div>${input}<div id=${`${id}-note`} class=${mistake ? "bad-text" : "quiet"}>${mistake ?? [typeOf(schema), schema.description].filter(Boolean).join(" · ")}</div></div></div>`;
}
