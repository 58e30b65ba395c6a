"""Start, watch and stop a run as Jobs of a Kubernetes cluster: one aggregator, one trainer per site.

cluster.py says where and how they run, objects.py makes their manifests, state.py reads how they fare, api.py speaks
to the API server, and launcher.py makes of it what training asks for.
"""
