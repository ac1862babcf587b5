/** Reads the text that prom-client makes for Prometheus. */

/** Values by `name{label="value",…}`, with sorted labels, and the types by name. */
export interface Exposition {
  values: Record<string, number>;
  types: Record<string, string>;
}

const SAMPLE = /^([a-zA-Z_:][\w:]*)(?:\{((?:[a-zA-Z_]\w*="(?:[^"\\\n]|\\["\\n])*",?)*)\})? (\S+)$/;

/** @throws when a line is no sample, comes twice, or comes before its type. */
export function parse(text: string): Exposition {
  const values: Record<string, number> = {};
  const types: Record<string, string> = {};
  for (const line of text.split("\n")) {
    const type = /^# TYPE (\S+) (\S+)$/.exec(line);
    if (type !== null) types[type[1] as string] = type[2] as string;
    if (line === "" || line.startsWith("#")) continue;
    const [, name = "", labels = "", number = ""] = SAMPLE.exec(line) ?? [];
    if (name === "") throw new Error(`no sample: ${line}`);
    const known = Object.hasOwn(types, name) || Object.hasOwn(types, name.replace(/_total$/, ""));
    if (!known) throw new Error(`a sample without a type: ${line}`);
    const sorted = (labels.match(/\w+="(?:[^"\\]|\\.)*"/g) ?? []).sort().join();
    const key = sorted === "" ? name : `${name}{${sorted}}`;
    if (Object.hasOwn(values, key)) throw new Error(`a sample twice: ${line}`);
    values[key] = Number(number);
  }
  return { values, types };
}
