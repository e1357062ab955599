// Bundles main.js with what it needs of OpenLayers and geotiff.js: one script and the licences of all that is in it.
// `node build.mjs [FOLDER]`; equal sources give equal bytes.
import {build} from 'esbuild';
import {readFileSync, readdirSync, writeFileSync} from 'node:fs';
import {basename, dirname, join, relative} from 'node:path';
import {fileURLToPath} from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const out = process.argv[2] ?? join(here, '..');

// rsup writes ZSTD, and wrote DEFLATE, which browsers inflate beside the page: geotiff.js needs neither its other decoders
// (half a megabyte of WebAssembly) nor workers made of text, which the page's policy would refuse.
const lean = {
  name: 'lean',
  setup(bundler) {
    const geotiff = /geotiff[\\/]dist-module[\\/]/.source;
    const ours = (name) => ({contents: readFileSync(join(here, name), 'utf8')});
    const at = (path) => ({resolveDir: dirname(path)});
    bundler.onLoad({filter: new RegExp(`${geotiff}pool\\.js$`)}, ({path}) => ({...ours('pool.js'), ...at(path)}));
    const decoder = /compression[\\/](raw|lzw|jpeg|packbits|lerc|webimage)\.js$/.source;
    bundler.onLoad({filter: new RegExp(geotiff + decoder)}, () => ({
      contents: 'export default class { constructor() { throw new Error("only ZSTD and DEFLATE are read here"); }}',
    }));
    const own = /compression[\\/](deflate|zstd)\.js$/.source;
    bundler.onLoad({filter: new RegExp(geotiff + own)}, ({path}) => ({...ours(basename(path)), ...at(path)}));
  },
};

const {metafile} = await build({
  entryPoints: [join(here, 'main.js')], outfile: join(out, 'view.js'), absWorkingDir: here, plugins: [lean],
  bundle: true, minify: true, format: 'iife', target: 'es2022', charset: 'utf8', legalComments: 'none', metafile: true,
  banner: {js: '// Built by web/build.mjs. Third parties, their versions and licences: view.LICENSES.txt'},
});

const folders = new Set();
for (const [path, {bytesInOutput}] of Object.entries(Object.values(metafile.outputs)[0].inputs)) {
  const found = /^(.*node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(relative(here, join(here, path)));
  if (found && bytesInOutput > 0) folders.add(found[1]);
}
const texts = [...folders].sort().map((folder) => {
  const {name, version, license} = JSON.parse(readFileSync(join(here, folder, 'package.json'), 'utf8'));
  const file = readdirSync(join(here, folder)).find((entry) => /^licen[cs]e/i.test(entry));
  const text = file ? readFileSync(join(here, folder, file), 'utf8').trim() : 'Its package holds no text of the licence.';
  return `${name} ${version} (${license})\n\n${text}\n`;
});
const line = `\n${'-'.repeat(100)}\n\n`;
writeFileSync(join(out, 'view.LICENSES.txt'), `What view.js holds of others.\n${line}${texts.join(line)}`);
