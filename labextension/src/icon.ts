/** The extension's icon: events in a row, folded into one value. */

import { LabIcon } from '@jupyterlab/ui-components';

const SVG = `<svg xmlns="http://www.w3.org/2000/svg" width="16" height="16" viewBox="0 0 24 24">
  <g class="jp-icon3" fill="#616161">
    <circle cx="4.5" cy="5" r="2.5"/><circle cx="12" cy="5" r="2.5"/><circle cx="19.5" cy="5" r="2.5"/>
    <path d="M3.5 9h2v2.6l5.5 3.2V9h2v5.8l5.5-3.2V9h2v3.8l-6.4 3.7a3.5 3.5 0 1 1-4.2 0l-6.4-3.7z"/>
  </g>
</svg>`;

export const catalogIcon = new LabIcon({ name: 'fs-notebook:catalog', svgstr: SVG });
