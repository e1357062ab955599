// The layers of a mosaic: its COG read by ranges, its uncertainty likewise, and the 10 m side in raw tiles.
import TileLayer from 'ol/layer/WebGLTile.js';
import {Projection, addProjection, get as known} from 'ol/proj.js';
import DataTile from 'ol/source/DataTile.js';
import GeoTIFF from 'ol/source/GeoTIFF.js';
import TileGrid from 'ol/tilegrid/TileGrid.js';

const SMOOTHLESS = {interpolate: false, transition: 0, wrapX: false};

const projectionOf = (code) => {
  if (!known(code)) addProjection(new Projection({code, units: 'm', metersPerUnit: 1}));
  return known(code);
};

const fromFile = (url, projection) => new GeoTIFF({
  sources: [{url: new URL(url, document.baseURI).href, nodata: 0}],
  normalize: false, projection, sourceOptions: {cacheSize: 200}, ...SMOOTHLESS,
});

// Tiles of the 10 m side: uint16 [band, y, x], 0 where it has nothing.
const fromTiles = (mosaic, projection) => {
  const {side, factors, url} = mosaic.coarse;
  const count = mosaic.bands.length;
  const load = async (z, x, y, {signal}) => {
    const answer = await fetch(`${url}/${factors[z]}/${y}/${x}`, {signal});
    if (!answer.ok) throw new Error(`${answer.status}`);
    const numbers = new Uint16Array(await answer.arrayBuffer());
    const area = side * side;
    const tile = new Float32Array(area * (count + 1));
    for (let i = 0; i < area; i++) {
      let valid = 0;
      for (let band = 0; band < count; band++) {
        const value = numbers[band * area + i];
        tile[i * (count + 1) + band] = value;
        valid |= value;
      }
      tile[i * (count + 1) + count] = valid ? 255 : 0;
    }
    return tile;
  };
  const [west, , , north] = mosaic.bounds;
  const tileGrid = new TileGrid({
    extent: mosaic.bounds, origin: [west, north], tileSize: side,
    resolutions: factors.map((factor) => factor * mosaic.coarse.gsd),
  });
  return new DataTile({loader: load, bandCount: count + 1, tileGrid, projection, ...SMOOTHLESS});
};

export const layersOf = (mosaic) => {
  const projection = projectionOf(mosaic.crs);
  const layer = (className, source, zIndex) => new TileLayer({className, source, zIndex, extent: mosaic.bounds});
  const fine = layer('fine', fromFile(mosaic.cog, projection), 0);
  const doubt = mosaic.uncertainty && layer('doubt', fromFile(mosaic.uncertainty.cog, projection), 1);
  const coarse = layer('coarse', fromTiles(mosaic, projection), 2);
  return {projection, fine, doubt, coarse};
};

// Metres along the pixels that a layer shows at a resolution of the view.
export const shownGsd = (layer, resolution) => {
  const grid = layer.getSource().getTileGrid();
  return grid ? grid.getResolution(grid.getZForResolution(resolution, layer.getSource().zDirection)) : NaN;
};
