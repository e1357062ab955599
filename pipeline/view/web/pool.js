// In the place of geotiff.js' pool of workers: its decoders are called here, and inflate beside the page by themselves.
import {getDecoder} from './compression/index.js';

export default class Pool {
  bindParameters(compression, parameters) {
    return {decode: async (buffer) => (await getDecoder(compression, parameters)).decode(buffer)};
  }
}
