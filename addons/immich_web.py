"""In front of the Immich server: `ocr:`, hybrid ranking, one photo again; everything else of the site passes through.

mitmdump -s addons/immich_web.py --mode reverse:http://immich-server:2283 -p 2284
"""

from mitmproxy.options import Options

from immich_triton.proxy.keepflows import KeepFlows
from immich_triton.proxy.quiet import Quiet
from immich_triton.proxy.webstyle import WebStyle
from immich_triton.web.configuration import Configuration
from immich_triton.web.contentview import ContentViews
from immich_triton.web.in_flight import InFlight
from immich_triton.web.menu import Menu
from immich_triton.web.ping import Ping
from immich_triton.web.reprocess import Reprocess
from immich_triton.web.search import Search
from immich_triton.web.service import Service
from immich_triton.web.settings import Settings
from immich_triton.web.site import Site
from immich_triton.web.site_comments import Comments
from immich_triton.web.site_metrics import Metrics
from immich_triton.web.sockets import Sockets

service = Service()


def keep_flows(options: Options) -> int:
    """Return how many flows mitmweb keeps."""
    return Settings.read(options).keep_flows


# The order is the contract: requests in flight are finished before anything ends; then options, what is logged, what
# passes through and how, what is answered here, who looks at it.
addons = [
    InFlight(service),
    Configuration(service),
    Quiet(),
    KeepFlows("web_keep_flows", keep_flows),
    Site(service),
    Sockets(),
    Ping(),
    Search(service),
    Reprocess(service),
    Menu(service),
    Metrics(service),
    Comments(),
    WebStyle(),
    ContentViews(),
]
