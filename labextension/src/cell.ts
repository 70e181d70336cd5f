/** What the front end reads from the text of a cell: whether it defines features, and which. */

const MAGIC = /^\s*%%feature(?=\s|$)(.*)/;

/** Whether a cell is a feature or a view in SQL; one in Polars is Python, and has Python's colours. */
export function isSql(source: string): boolean {
  const header = /^\s*%%(?:feature|view)(?=\s|$)(.*)/.exec(source);
  return header !== null && !/\s(?:-l|--language)(?:\s+|=)polars(?=\s|$)/.test(header[1]);
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
