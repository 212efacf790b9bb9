"""In front of the Immich server: `ocr:`, hybrid ranking, one photo again; everything else of the site passes through.

mitmdump -s addons/immich_web.py --mode reverse:http://immich-server:2283 -p 2284
"""

from immich_triton.web.configuration import Configuration
from immich_triton.web.menu import Menu
from immich_triton.web.quiet import Quiet
from immich_triton.web.reprocess import Reprocess
from immich_triton.web.search import Search
from immich_triton.web.service import Service
from immich_triton.web.site import Site
from immich_triton.web.sockets import Sockets

service = Service()

# The order is the contract: options, what is logged, what passes through and how, what is answered here.
addons = [
    Configuration(service),
    Quiet(),
    Site(service),
    Sockets(),
    Search(service),
    Reprocess(service),
    Menu(service),
]
