"""Answer Immich's machine-learning requests from NVIDIA Triton; pass everything else through.

mitmdump -s addons/immich_ml.py --mode reverse:http://immich-ml:3003 -p 3004 --set immich_triton_url=http://triton:8000
"""

from immich_triton.auth import Auth
from immich_triton.catchup import CatchUp
from immich_triton.commands import Commands
from immich_triton.comments import Comments
from immich_triton.configuration import Configuration
from immich_triton.contentview import ContentViews
from immich_triton.drain import Drain
from immich_triton.gateway import Gateway
from immich_triton.health import Health
from immich_triton.housekeeping import Housekeeping
from immich_triton.keepflows import KeepFlows
from immich_triton.limits import Limits
from immich_triton.metrics import Metrics
from immich_triton.passthrough import PassThrough
from immich_triton.privacy import Privacy
from immich_triton.request_id import RequestIds
from immich_triton.service import Service
from immich_triton.shadow import Shadow
from immich_triton.webstyle import WebStyle

service = Service()

# The order is the contract: requests in flight are finished before anything ends; then options, who may ask, who owns a
# request, what it may take, who answers it, who looks at it.
addons = [
    Drain(service),
    Configuration(service),
    RequestIds(),
    Privacy(service),
    KeepFlows(),
    Auth(service),
    PassThrough(service),
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
