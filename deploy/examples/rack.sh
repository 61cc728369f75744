# To be read by a recipe: RACK, unless it is set, is this host's: the label `rack` of its dockerd (daemon.json: "labels": ["rack=r1"]).
RACK=${RACK-$(docker info -f '{{range .Labels}}{{println .}}{{end}}' | sed -n 's/^rack=//p')}
