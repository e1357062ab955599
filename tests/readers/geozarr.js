// OpenLayers' GeoZarr source on a mosaic's store: draws it at full resolution, and says what it has drawn.
import Map from 'ol/Map.js';
import View from 'ol/View.js';
import TileLayer from 'ol/layer/WebGLTile.js';
import Projection from 'ol/proj/Projection.js';
import {addProjection} from 'ol/proj.js';
import GeoZarr from 'ol/source/GeoZarr.js';

const asked = new URLSearchParams(location.search);
const bands = ['red', 'green', 'blue'];
addProjection(new Projection({code: asked.get('crs'), units: 'm'}));
const source = new GeoZarr({url: new URL(asked.get('store'), location).href, bands, resample: 'nearest'});
const shade = (band) => ['/', ['-', ['band', band], 1000], 3000];
const layer = new TileLayer({
  source,
  style: {color: ['array', shade(1), shade(2), shade(3), ['band', 4]]},
});
const say = (what) => fetch('said', {method: 'POST', body: JSON.stringify(what)});

// What the map's canvases show: [y][x] of red, green, blue and alpha, one row in 8 and one column in 8.
const picture = (map) => {
  const canvas = document.createElement('canvas');
  [canvas.width, canvas.height] = map.getSize();
  const context = canvas.getContext('2d');
  for (const part of map.getViewport().querySelectorAll('canvas')) {
    if (part.width > 0) context.drawImage(part, 0, 0, canvas.width, canvas.height);
  }
  const rows = [];
  for (let y = 0; y < canvas.height; y += 8) {
    rows.push([]);
    for (let x = 0; x < canvas.width; x += 8) rows.at(-1).push([...context.getImageData(x, y, 1, 1).data]);
  }
  return rows;
};

source.on('change', async () => {
  if (source.getState() === 'error') say({error: String(source.error_)});
  if (source.getState() !== 'ready' || source.told) return;
  source.told = true;
  if (asked.has('full')) source.bandsByLevel_['.'] = bands;  // the line of docs/zarr.md
  const grid = source.tileGrid;
  const [west, , , north] = grid.getExtent();
  const finest = grid.getResolutions().length - 1;
  const map = new Map({target: 'map', layers: [layer], view: new View({
    projection: source.getProjection(), center: [west + 320, north - 320], resolution: grid.getResolution(finest),
  })});
  const tile = await source.loadTile_(finest, 1, 1, {});
  const said = {
    levels: source.bandsByLevel_, resolution: grid.getResolution(finest),
    red: Array.from({length: 256}, (_, i) => tile[i * source.bandCount]),
  };
  map.once('rendercomplete', () => say({...said, picture: picture(map)}));
  map.render();
});
