// Numbers, times and sizes as people read them.

const NONE = "–";
const exact = new Intl.NumberFormat("en");
const SUFFIXES = ["", "k", "M", "G", "T"];

export function isNumber(value) {
  return typeof value === "number" && Number.isFinite(value);
}

/** 1234 -> "1,234", for counts. */
export function count(value) {
  return isNumber(value) ? exact.format(Math.round(value)) : NONE;
}

/** 12345 -> "12.3k": three digits that count. */
export function short(value) {
  if (!isNumber(value)) return NONE;
  let number = value;
  let step = 0;
  while (Math.abs(number) >= 999.5 && step < SUFFIXES.length - 1) {
    number /= 1000;
    step += 1;
  }
  const size = Math.abs(number);
  if (size >= 1e6) return number.toExponential(1);
  const digits = size >= 99.95 || Number.isInteger(number) ? 0 : size >= 9.995 ? 1 : 2;
  return number.toFixed(digits) + SUFFIXES[step];
}

export function perSecond(value) {
  return isNumber(value) ? `${short(value)}/s` : NONE;
}

/** Returns are small in many environments, so they keep their digits. */
export function meanReturn(value) {
  if (!isNumber(value)) return NONE;
  const size = Math.abs(value);
  if (size >= 1e6) return short(value);
  return value.toFixed(size >= 10 ? 1 : size >= 1 ? 2 : 3);
}

export function decimal(value, digits) {
  return isNumber(value) ? value.toFixed(digits) : NONE;
}

/** A time of day in UTC, as the reader's own clock shows it; any other text as it is. */
export function moment(text) {
  const time = new Date(text);
  if (Number.isNaN(time.getTime())) return text;
  return new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "short" }).format(time);
}

/** 7384 -> "2 h 03 min". */
export function seconds(value) {
  if (!isNumber(value)) return NONE;
  if (value < 10) return `${Number.isInteger(value) ? value : value.toFixed(1)} s`;
  const whole = Math.round(value);
  if (whole < 100) return `${whole} s`;
  const pad = (number) => String(number).padStart(2, "0");
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${pad(whole % 60)} s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 48 * 60) return `${Math.floor(minutes / 60)} h ${pad(minutes % 60)} min`;
  return `${count(minutes / 1440)} days`;
}

/** For axes: "90 s", "5 min", "2 h". */
export function shortSeconds(value) {
  if (value < 120) return `${short(value)} s`;
  if (value < 7200) return `${short(value / 60)} min`;
  return `${short(value / 3600)} h`;
}

export function bytes(value) {
  if (!isNumber(value)) return NONE;
  let size = value;
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (size < 1000) return `${size < 10 && unit !== "B" ? size.toFixed(1) : Math.round(size)} ${unit}`;
    size /= 1024;
  }
  return `${size.toFixed(1)} TiB`;
}

export function plural(number, word) {
  return `${count(number)} ${word}${number === 1 ? "" : "s"}`;
}
