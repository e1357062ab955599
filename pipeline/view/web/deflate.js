// In the place of geotiff.js' own: the browser's inflater, which works beside the page.
import BaseDecoder from './basedecoder.js';

export default class extends BaseDecoder {
  decodeBlock(buffer) {
    const inflated = new Blob([buffer]).stream().pipeThrough(new DecompressionStream('deflate'));
    return new Response(inflated).arrayBuffer();
  }
}
