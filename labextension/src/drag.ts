/** Dragging a feature out of the catalog: a notebook that it is dropped on gets a cell of it. */

import { MimeData } from '@lumino/coreutils';
import { Drag } from '@lumino/dragdrop';

/** How far the pointer goes before a press is a drag. */
const FAR_PX = 5;
const CELLS_MIME = 'application/vnd.jupyter.cells';

function image(name: string): HTMLElement {
  const node = document.createElement('div');
  node.className = 'fs-Dragged';
  node.textContent = name;
  return node;
}

/**
 * Begin to drag once the pointer that was pressed on a row has gone far enough. `source` is asked for
 * the cell's text then; a click stays a click.
 */
export function dragFrom(press: PointerEvent, name: string, source: () => string): void {
  if (press.button !== 0) {
    return;
  }
  const stop = (): void => {
    document.removeEventListener('pointermove', move, true);
    document.removeEventListener('pointerup', stop, true);
    document.removeEventListener('pointercancel', stop, true);
  };
  const move = (event: PointerEvent): void => {
    const far = Math.hypot(event.clientX - press.clientX, event.clientY - press.clientY);
    if (far < FAR_PX) {
      return;
    }
    stop();
    const text = source();
    const mimeData = new MimeData();
    mimeData.setData(CELLS_MIME, [{ cell_type: 'code', source: text }]);
    mimeData.setData('text/plain', text);
    const drag = new Drag({
      mimeData,
      dragImage: image(name),
      supportedActions: 'copy-move',
      proposedAction: 'copy',
      source: null
    });
    void drag.start(event.clientX, event.clientY).then(() => drag.dispose());
  };
  document.addEventListener('pointermove', move, true);
  document.addEventListener('pointerup', stop, true);
  document.addEventListener('pointercancel', stop, true);
}
