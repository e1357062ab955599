"""Runs in QGIS's own Python, `python3 qgis_render.py IMAGE PICTURE`: draws a raster as it opens, and says how."""

import json
import sys

from qgis.core import QgsApplication, QgsMapRendererSequentialJob, QgsMapSettings, QgsRasterLayer
from qgis.PyQt.QtCore import QSize
from qgis.PyQt.QtGui import QColor

application = QgsApplication([], False)
application.initQgis()
layer = QgsRasterLayer(sys.argv[1], "mosaic")
settings = QgsMapSettings()
settings.setLayers([layer])
settings.setBackgroundColor(QColor(0, 0, 0, 0))
settings.setDestinationCrs(layer.crs())
settings.setExtent(layer.extent())
settings.setOutputSize(QSize(layer.width(), layer.height()))
job = QgsMapRendererSequentialJob(settings)
job.start()
job.waitForFinished()
job.renderedImage().save(sys.argv[2])
provider, renderer = layer.dataProvider(), layer.renderer()
said = {
    "valid": layer.isValid(),
    "crs": layer.crs().authid(),
    "names": [layer.bandName(band + 1) for band in range(layer.bandCount())],
    "renderer": renderer.type(),
    "bands": renderer.usesBands(),
    "nodata": [provider.sourceNoDataValue(band + 1) for band in range(layer.bandCount())],
    "scale": [[provider.bandScale(band + 1), provider.bandOffset(band + 1)] for band in range(layer.bandCount())],
    "ranges": [
        [enhancement.minimumValue(), enhancement.maximumValue()]
        for enhancement in (
            renderer.redContrastEnhancement(),
            renderer.greenContrastEnhancement(),
            renderer.blueContrastEnhancement(),
        )
        if enhancement is not None
    ],
}
sys.stdout.write(json.dumps(said) + "\n")
del layer
application.exitQgis()
