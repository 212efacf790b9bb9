"""Answer Immich's machine-learning requests from NVIDIA Triton; pass everything else through.

mitmdump -s addons/immich_ml.py --mode reverse:http://immich-ml:3003 -p 3004 --set immich_triton_url=http://triton:8000
"""

from immich_triton.comments import Comments
from immich_triton.configuration import Configuration
from immich_triton.contentview import ContentViews
from immich_triton.gateway import Gateway
from immich_triton.health import Health
from immich_triton.keepflows import KeepFlows
from immich_triton.passthrough import PassThrough
from immich_triton.service import Service

service = Service()

# The order is the contract: options first, then who owns a request, then who answers it, then who looks at it.
addons = [
    Configuration(service),
    KeepFlows(),
    PassThrough(service),
    Health(service),
    Gateway(service),
    Comments(service),
    ContentViews(),
]
