/** What the front end reads from the text of a cell: whether it defines features, and which. */

const MAGIC = /^\s*%%feature(?=\s|$)(.*)/;

/** Whether a `%%feature` cell is written in Polars: what is Python needs no colours of SQL. */
export function isPolars(source: string): boolean {
  return /^\s*%%feature\s(?:.*\s)?(?:-l|--language)(?:\s+|=)polars(?=\s|$)/.test(source);
}

/**
 * The name that a `%%feature` cell defines; an empty string where the cell names none yet, and null
 * for any other cell.
 */
export function featureName(source: string): string | null {
  const match = MAGIC.exec(source);
  if (!match) {
    return null;
  }
  const words = match[1].trim().split(/\s+/);
  for (let i = 0; i < words.length; i++) {
    if (!words[i].startsWith('-')) {
      return words[i];
    }
    // `--entity user` takes the next word with it, `--entity=user` does not.
    if (!words[i].includes('=')) {
      i++;
    }
  }
  return '';
}
