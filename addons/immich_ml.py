"""Answer Immich's machine-learning requests from NVIDIA Triton; pass everything else through.

mitmdump -s addons/immich_ml.py --mode reverse:http://immich-ml:3003 -p 3004 --set immich_triton_url=http://triton:8000
"""

from immich_triton.core.housekeeping import Housekeeping
from immich_triton.core.request_id import RequestIds
from immich_triton.inspect.commands import Commands
from immich_triton.inspect.comments import Comments
from immich_triton.inspect.contentview import ContentViews
from immich_triton.inspect.shadow import Shadow
from immich_triton.ml.catchup import CatchUp
from immich_triton.ml.classify import classify
from immich_triton.ml.configuration import Configuration
from immich_triton.ml.gateway import Gateway
from immich_triton.ml.health import Health
from immich_triton.ml.metrics import Metrics
from immich_triton.ml.service import Service
from immich_triton.proxy.auth import Auth
from immich_triton.proxy.drain import Drain
from immich_triton.proxy.keepflows import KeepFlows
from immich_triton.proxy.limits import Limits
from immich_triton.proxy.passthrough import PassThrough
from immich_triton.proxy.privacy import Privacy
from immich_triton.proxy.quiet import Quiet
from immich_triton.proxy.webstyle import WebStyle

service = Service()

# The order is the contract: requests in flight are finished before anything ends; then options, who may ask, who owns a
# request, what it may take, who answers it, who looks at it.
addons = [
    Drain(service),
    Configuration(service),
    Quiet(),
    RequestIds(),
    Privacy(service),
    KeepFlows(),
    Auth(service),
    PassThrough(service, classify),
    Limits(service),
    Health(service),
    Gateway(service),
    CatchUp(service),
    Metrics(service),
    Comments(service),
    WebStyle(),
    ContentViews(),
    Commands(service),
    Shadow(service),
    Housekeeping(),
]
