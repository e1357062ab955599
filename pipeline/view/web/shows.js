// What can be shown of a mosaic, and how its numbers become colours: bands and stretch in, styles of OpenLayers out.

export const RAMP = [[0, '#7f4a1e'], [0.25, '#d9b06b'], [0.45, '#f4ecc2'], [0.65, '#8fbf5a'], [1, '#0b5d1e']];
export const NDVI_RANGE = [-0.1, 0.9];

// Everything that this mosaic can be seen as: key, title, the bands of its channels, and of which file.
export const shows = ({bands, uncertainty}) => {
  const has = (...names) => names.every((name) => bands.includes(name));
  const found = [];
  if (has('red', 'green', 'blue')) found.push({title: 'Natural colour', bands: ['red', 'green', 'blue']});
  if (has('nir', 'red', 'green')) found.push({title: 'False colour (nir, red, green)', bands: ['nir', 'red', 'green']});
  if (!found.length && bands.length > 2) found.push({title: bands.slice(0, 3).join(', '), bands: bands.slice(0, 3)});
  if (has('nir', 'red')) found.push({title: 'NDVI', bands: ['nir', 'red'], index: true});
  for (const band of bands) found.push({title: `Band ${band}`, bands: [band]});
  if (uncertainty) for (const band of bands) found.push({title: `Uncertainty of ${band}`, bands: [band], doubt: true});
  return found;
};

export const reflectance = (number) => number * 1e-4 - 0.1;
const stored = (value) => (value + 0.1) * 1e4;
export const ndvi = (nir, red) => (nir + red > 0 ? (nir - red) / (nir + red) : NaN);

// The channels' names and the range of each in its own unit.
export const channels = (show, mosaic) => {
  if (show.index) return [{name: 'NDVI', range: NDVI_RANGE}];
  const ranges = show.doubt ? mosaic.uncertainty.stretch : mosaic.stretch;
  return show.bands.map((band) => ({name: band, range: ranges[mosaic.bands.indexOf(band)]}));
};

// The style of a layer whose tiles hold stored numbers of all bands, and 255 where they are valid.
export const style = (show, mosaic) => {
  const band = (name) => ['band', mosaic.bands.indexOf(name) + 1];
  const alpha = ['/', ['band', mosaic.bands.length + 1], 255];
  const share = (value, k) =>
    ['^', ['clamp', ['/', ['-', value, ['var', `low${k}`]], ['var', `span${k}`]], 0, 1], ['var', 'power']];
  if (show.index) {
    const [nir, red] = show.bands.map(band);
    const sum = ['-', ['+', nir, red], 2000];
    const value = ['/', ['-', nir, red], ['clamp', sum, 1, 131072]];
    const ramp = ['interpolate', ['linear'], share(value, 0), ...RAMP.flat()];
    return {color: ['case', ['==', alpha, 0], [0, 0, 0, 0], ramp]};
  }
  const shades = show.bands.map((name, k) => share(band(name), k));
  const [red, green, blue] = shades.length === 3 ? shades : [shades[0], shades[0], shades[0]];
  return {color: ['array', red, green, blue, alpha]};
};

// What the style asks for by name: of each channel where it begins and how far it goes, and the exponent of all.
export const variables = (show, ranges, gamma) => {
  const unit = show.index ? (value) => value : show.doubt ? (value) => value * 1e4 : stored;
  const found = {power: show.index ? 1 : 1 / gamma};
  ranges.forEach(([low, high], k) => {
    found[`low${k}`] = unit(low);
    found[`span${k}`] = Math.max(unit(high) - unit(low), 1e-6);
  });
  return found;
};
