// The page of `rsup view`: a map without a base map, the 10 m image and the mosaic on either side of a line.
import OlMap from 'ol/Map.js';
import View from 'ol/View.js';
import ScaleLine from 'ol/control/ScaleLine.js';
import Zoom from 'ol/control/Zoom.js';
import {defaults as interactions} from 'ol/interaction/defaults.js';

import {layersOf, shownGsd} from './layers.js';
import {read} from './readout.js';
import {RAMP, channels, ndvi, reflectance, shows, style, variables} from './shows.js';

const at = (id) => document.getElementById(id);
const GAMMA = 1.5;
const SAMPLES = 96;  // of the view, along its longer side, that a stretch is fitted to

const json = async (url) => {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`${url}: ${answer.status} ${await answer.text()}`);
  return answer.json();
};

const complain = (error) => {
  at('trouble').textContent = `This mosaic cannot be shown: ${error.message ?? error}`;
  at('trouble').hidden = false;
};

const options = (select, names) =>
  select.replaceChildren(...names.map((name, k) => Object.assign(document.createElement('option'), {value: k, textContent: name})));

// What is under the view now, sorted: of the channel's values in its unit, those that are valid.
const sampled = (map, layer, show, mosaic) => {
  const [width, height] = map.getSize();
  const step = Math.max(width, height) / SAMPLES;
  const found = channels(show, mosaic).map(() => []);
  for (let y = step / 2; y < height; y += step) {
    for (let x = step / 2; x < width; x += step) {
      const data = layer.getData([x, y]);
      if (!data || !data[mosaic.bands.length]) continue;
      const values = show.bands.map((band) => data[mosaic.bands.indexOf(band)]);
      const numbers = show.doubt ? values.map((value) => value * 1e-4) : values.map(reflectance);
      (show.index ? [ndvi(...numbers)] : numbers).forEach((value, k) => Number.isFinite(value) && found[k].push(value));
    }
  }
  return found.map((values) => values.sort((a, b) => a - b));
};

const start = (mosaic) => {
  const layers = layersOf(mosaic);
  const all = [layers.fine, layers.doubt, layers.coarse].filter(Boolean);
  const view = new View({
    projection: layers.projection, extent: mosaic.bounds, constrainOnlyCenter: true, enableRotation: false,
    minResolution: mosaic.gsd / 16, showFullExtent: true,
  });
  const map = new OlMap({
    target: 'map', layers: all, view,
    controls: [new Zoom({zoomInTipLabel: 'Zoom in', zoomOutTipLabel: 'Zoom out'}), new ScaleLine()],
    interactions: interactions({altShiftDragRotate: false, pinchRotate: false, onFocusOnly: false}),
  });
  view.fit(mosaic.bounds, {padding: [24, 24, 24, 24], size: map.getSize()});

  const kinds = shows(mosaic);
  let show = kinds[0];
  let ranges = [];
  options(at('show'), kinds.map(({title}) => title));

  const paint = () => {
    const values = variables(show, ranges, Number(at('gamma').value));
    for (const layer of all) layer.updateStyleVariables(values);
    at('gamma-value').textContent = Number(at('gamma').value).toFixed(2);
  };
  const listed = () => {
    at('ranges').replaceChildren(...channels(show, mosaic).map(({name}, k) => {
      const line = document.createElement('tr');
      const head = Object.assign(document.createElement('th'), {scope: 'row', textContent: name});
      line.append(head, ...['from', 'to'].map((end, side) => {
        const input = Object.assign(document.createElement('input'), {
          type: 'number', step: show.doubt ? 0.001 : 0.01, value: ranges[k][side].toFixed(show.doubt ? 4 : 3),
        });
        input.setAttribute('aria-label', `${name}, ${end}`);
        input.addEventListener('input', () => {
          if (Number.isFinite(input.valueAsNumber)) ranges[k][side] = input.valueAsNumber;
          paint();
        });
        const cell = document.createElement('td');
        cell.append(input);
        return cell;
      }));
      return line;
    }));
    paint();
  };
  const reset = () => {
    ranges = channels(show, mosaic).map(({range}) => [...range]);
    at('gamma').value = show.index || show.doubt ? 1 : GAMMA;
    listed();
  };
  const choose = () => {
    show = kinds[Number(at('show').value)];
    reset();
    const values = variables(show, ranges, Number(at('gamma').value));
    // Left and right show the same bands, but where the right is the uncertainty: there is none of 10 m pixels.
    const bare = show.doubt ? {...show, doubt: false} : show;
    const bareValues = variables(bare, channels(bare, mosaic).map(({range}) => range), GAMMA);
    layers.fine.setStyle({...style(bare, mosaic), variables: show.doubt ? bareValues : values});
    layers.coarse.setStyle({...style(bare, mosaic), variables: show.doubt ? bareValues : values});
    layers.doubt?.setStyle({...style(show, mosaic), variables: values});
    layers.doubt?.setVisible(Boolean(show.doubt));
    at('gamma').disabled = Boolean(show.index);
    at('key').hidden = !show.index;
    at('other').textContent = show.doubt ? mosaic.uncertainty.meaning : 'the mosaic.';
    label();
  };
  const label = () => {
    const resolution = view.getResolution();
    const metres = (layer) => `${Number(shownGsd(layer, resolution).toPrecision(4))} m`;
    at('left').textContent = `${mosaic.coarse.label}, ${metres(layers.coarse)}`;
    const shown = show.doubt ? 'uncertainty' : 'mosaic';
    at('right').textContent = `${shown}, ${metres(show.doubt ? layers.doubt : layers.fine)}`;
  };

  at('key-bar').style.background =
    `linear-gradient(to right, ${RAMP.map(([share, colour]) => `${colour} ${100 * share}%`).join(', ')})`;
  at('show').addEventListener('change', choose);
  at('gamma').addEventListener('input', paint);
  at('reset').addEventListener('click', reset);
  at('fit').addEventListener('click', () => {
    const layer = show.doubt ? layers.doubt : layers.fine;
    sampled(map, layer, show, mosaic).forEach((values, k) => {
      if (values.length < 2) return;
      const [low, high] = [0.005, 0.99].map((share) => values[Math.round(share * (values.length - 1))]);
      ranges[k] = [low, Math.max(high, low + (show.doubt ? 0.001 : 0.02))];
    });
    listed();
  });
  at('whole').addEventListener('click', () => view.fit(mosaic.bounds, {padding: [24, 24, 24, 24], duration: 200}));
  at('pixels').addEventListener('click', () => view.animate({resolution: mosaic.gsd, duration: 200}));

  const swipe = () => {
    at('stage').style.setProperty('--at', `${at('swipe').value}%`);
  };
  at('swipe').addEventListener('input', swipe);

  const table = {head: at('values-head'), body: at('values')};
  let pointer = null;
  const middle = () => map.getSize().map((side) => side / 2);
  const tell = () => {
    const pixel = pointer ?? middle();
    const words = read(map, layers, mosaic, pixel, table);
    at('where').textContent = `${words}${pointer ? '' : ', in the middle of the map'}`;
  };
  map.on('pointermove', ({pixel, dragging}) => {
    if (dragging) return;
    pointer = pixel;
    at('stage').classList.remove('keys');
    tell();
  });
  map.getViewport().addEventListener('pointerleave', () => { pointer = null; });
  map.getTargetElement().addEventListener('keydown', () => {
    pointer = null;
    at('stage').classList.add('keys');
  });
  map.on('moveend', () => { label(); tell(); });
  map.on('rendercomplete', () => { tell(); document.documentElement.dataset.drawn = 'yes'; });
  for (const layer of all) {
    layer.getSource().on('change', () => {
      if (layer.getSource().getState() === 'error') complain(layer.getSource().getError());
      label();
    });
    layer.getSource().on('tileloaderror', () => complain('a tile could not be read; is the command still running?'));
  }
  choose();
  swipe();
  window.map = map;  // for those who look closer, in the browser's console
};

const about = (mosaic) => {
  document.title = `${mosaic.name} – rsup view`;
  at('name').textContent = mosaic.name;
  at('summary').textContent = mosaic.summary;
  at('side').textContent = mosaic.coarse.meaning;
  at('attribution').textContent = mosaic.attribution;
};

const main = async () => {
  if (!document.createElement('canvas').getContext('webgl2')) throw new Error('this browser has no WebGL 2');
  const mosaics = await json('mosaics');
  const asked = Number(new URLSearchParams(location.search).get('mosaic') ?? 0);
  const chosen = mosaics[asked] ? asked : 0;
  if (mosaics.length > 1) {
    options(at('mosaic'), mosaics.map(({name}) => name));
    at('mosaic').value = chosen;
    at('mosaic').addEventListener('change', () => { location.search = `?mosaic=${at('mosaic').value}`; });
    at('choice').hidden = false;
  }
  const mosaic = await json(`mosaics/${chosen}`);
  about(mosaic);
  start(mosaic);
};

main().catch(complain);
