// The comparison, and how its numbers are written.

export const byId = (id) => document.getElementById(id);
export const data = JSON.parse(byId("data").textContent);
export const baseline = data.rows.find((row) => row.name === data.baseline);
export const mean = (row, name) => row.metrics[name]?.mean;

// Rows whose names contain all words of the filter.
export function shown() {
  const words = byId("filter").value.toLowerCase().split(/\s+/);
  return data.rows.filter((row) => words.every((word) => row.name.toLowerCase().includes(word)));
}

// Rounds the shortest decimal half up, as callbacks/console.py does in all tables.
function rounded(value, digits) {
  const [mantissa, exponent = "0"] = String(Math.abs(value)).split("e");
  const steps = Math.round(Number(`${mantissa}e${Number(exponent) + digits}`));
  return Math.sign(value) * Number(`${steps}e-${digits}`);
}
const MISSING = "–";
export const fixed = (value, digits = 3) =>
  value == null ? MISSING : rounded(value, digits).toFixed(digits).replace("-", "−");
export const signed = (value) => (value > 0 ? "+" : "") + fixed(value);
export const pValue = (p) => (p != null && p < 0.001 ? "< 0.001" : fixed(p));
export const interval = (bounds) => (bounds ? `[${fixed(bounds[0])}, ${fixed(bounds[1])}]` : "");
export const plusMinus = (value, bounds) => (bounds ? `± ${fixed(bounds[1] - value)}` : "");
export const listed = (names) => names.join(", ");
