"""Answer MT-Photos as mt-photos-ai does, from NVIDIA Triton. The address in --mode is never asked: there is no stock.

mitmdump -s addons/mt_photos.py --mode reverse:http://127.0.0.1:9 -p 8060 --set immich_triton_url=http://triton:8000
"""

from immich_triton.core.housekeeping import Housekeeping
from immich_triton.core.request_id import RequestIds
from immich_triton.ml.configuration import Configuration
from immich_triton.ml.health import Health
from immich_triton.ml.metrics import Metrics
from immich_triton.mt_photos.claim import Claim
from immich_triton.mt_photos.gateway import Gateway
from immich_triton.mt_photos.pages import Pages
from immich_triton.mt_photos.service import Service
from immich_triton.mt_photos.settings import Settings
from immich_triton.proxy.drain import Drain
from immich_triton.proxy.keepflows import KeepFlows
from immich_triton.proxy.limits import Limits
from immich_triton.proxy.privacy import Privacy
from immich_triton.proxy.quiet import Quiet

service = Service()

# The order is the contract, as in immich_ml.py: options, who may ask, what a request may take, who answers it.
addons = [
    Drain(service),
    Configuration(service, Settings),
    Quiet(),
    RequestIds(),
    Privacy(service),
    KeepFlows(),
    Claim(service),
    Limits(service),
    Health(service),
    Pages(service),
    Gateway(service),
    Metrics(service),
    Housekeeping(),
]
