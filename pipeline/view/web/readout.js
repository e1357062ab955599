// The numbers under the pointer, or under the cross in the middle for those who use the keyboard, as a table.
import {shownGsd} from './layers.js';
import {ndvi, reflectance} from './shows.js';

const metres = (value) => `${Number(value.toPrecision(4))} m`;
const written = (value) => (Number.isFinite(value) ? value.toFixed(4) : '–');

const valuesAt = (layer, pixel, count) => {
  const found = layer?.getVisible() ? layer.getData(pixel) : null;
  return found && found[count] > 0 ? [...found].slice(0, count) : null;
};

const row = (tag, cells) => {
  const line = document.createElement('tr');
  cells.forEach((text, k) => {
    const cell = document.createElement(k ? tag : 'th');
    cell.scope = k ? 'col' : tag === 'th' ? 'col' : 'row';
    cell.textContent = text;
    line.append(cell);
  });
  return line;
};

// Fills `head` and `body` for a pixel of the map; says in one sentence where that is.
export const read = (map, layers, mosaic, pixel, {head, body}) => {
  const count = mosaic.bands.length;
  const resolution = map.getView().getResolution();
  const doubting = layers.doubt?.getVisible();
  const columns = [
    [metres(shownGsd(layers.coarse, resolution)), valuesAt(layers.coarse, pixel, count)?.map(reflectance)],
    [metres(shownGsd(layers.fine, resolution)), valuesAt(layers.fine, pixel, count)?.map(reflectance)],
  ];
  if (doubting) columns.push(['±', valuesAt(layers.doubt, pixel, count)?.map((value) => value * 1e-4)]);
  head.replaceChildren(row('th', ['', ...columns.map(([name]) => name)]));
  const lines = mosaic.bands.map((band, k) => row('td', [band, ...columns.map(([, found]) => written(found?.[k]))]));
  const [nir, red] = [mosaic.bands.indexOf('nir'), mosaic.bands.indexOf('red')];
  if (nir >= 0 && red >= 0) {
    const index = columns.map(([name, found]) => (name === '±' ? '' : written(found && ndvi(found[nir], found[red]))));
    lines.push(row('td', ['NDVI', ...index]));
  }
  body.replaceChildren(...lines);
  const place = map.getCoordinateFromPixel(pixel);
  return place ? `x ${place[0].toFixed(1)} m, y ${place[1].toFixed(1)} m` : '';
};
