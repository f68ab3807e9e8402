"""Routes: every operation of the API has one, and paths find theirs."""

import pytest

from hafen.api.routes.table import ROUTES, router
from hafen.errors import NotFound

# method and path of each operation of API 1.55; `{}` stands for one parameter
OPERATIONS = (
    """
GET /containers/json|POST /containers/create|GET /containers/{}/json|GET /containers/{}/top|GET /containers/{}/logs
GET /containers/{}/changes|GET /containers/{}/export|GET /containers/{}/stats|POST /containers/{}/resize
POST /containers/{}/start|POST /containers/{}/stop|POST /containers/{}/restart|POST /containers/{}/kill
POST /containers/{}/update|POST /containers/{}/rename|POST /containers/{}/pause|POST /containers/{}/unpause
POST /containers/{}/attach|GET /containers/{}/attach/ws|POST /containers/{}/wait|DELETE /containers/{}
HEAD /containers/{}/archive|GET /containers/{}/archive|PUT /containers/{}/archive|POST /containers/prune
GET /images/json|POST /build|POST /build/prune|POST /images/create|GET /images/{}/json|GET /images/{}/attestations
GET /images/{}/history|POST /images/{}/push|POST /images/{}/tag|DELETE /images/{}|GET /images/search
POST /images/prune|POST /commit|GET /images/{}/get|GET /images/get|POST /images/load
GET /networks|GET /networks/{}|DELETE /networks/{}|POST /networks/create|POST /networks/{}/connect
POST /networks/{}/disconnect|POST /networks/prune
GET /volumes|POST /volumes/create|GET /volumes/{}|PUT /volumes/{}|DELETE /volumes/{}|POST /volumes/prune
POST /containers/{}/exec|POST /exec/{}/start|POST /exec/{}/resize|GET /exec/{}/json
GET /swarm|POST /swarm/init|POST /swarm/join|POST /swarm/leave|POST /swarm/update|GET /swarm/unlockkey
POST /swarm/unlock|GET /nodes|GET /nodes/{}|DELETE /nodes/{}|POST /nodes/{}/update
GET /services|POST /services/create|GET /services/{}|DELETE /services/{}|POST /services/{}/update
GET /services/{}/logs|GET /tasks|GET /tasks/{}|GET /tasks/{}/logs
GET /secrets|POST /secrets/create|GET /secrets/{}|DELETE /secrets/{}|POST /secrets/{}/update
GET /configs|POST /configs/create|GET /configs/{}|DELETE /configs/{}|POST /configs/{}/update
GET /plugins|GET /plugins/privileges|POST /plugins/pull|GET /plugins/{}/json|DELETE /plugins/{}
POST /plugins/{}/enable|POST /plugins/{}/disable|POST /plugins/{}/upgrade|POST /plugins/create
POST /plugins/{}/push|POST /plugins/{}/set
POST /auth|GET /info|GET /version|GET /_ping|HEAD /_ping|GET /events|GET /system/df
GET /distribution/{}/json|POST /session
""".strip()
    .replace("\n", "|")
    .split("|")
)


def test_each_of_the_108_operations_has_a_route() -> None:
    found = router()
    assert len(OPERATIONS) == 108
    for operation in OPERATIONS:
        method, path = operation.split(" ")
        route, params = found.find(method, path.replace("{}", "some"), (1, 55))
        assert route.path.count("{") == path.count("{")
        assert list(params.values()) == ["some"] * path.count("{")


def test_no_route_is_hidden_by_an_earlier_one() -> None:
    found = router()
    for route in ROUTES:
        path = (
            route.path.replace("{id}", "a")
            .replace("{id:path}", "a")
            .replace("{name}", "a")
            .replace("{name:path}", "a/b:c@sha256:d")
        )
        assert found.find(route.method, path.replace("{checkpoint}", "z"), (1, 55))[0] is route


def test_image_names_may_hold_slashes_and_look_like_verbs() -> None:
    for name in ("a/b/c:1", "json", "history/x", "get"):
        route, params = router().find("GET", f"/images/{name}/history", (1, 55))
        assert (route.path, params) == ("/images/{name:path}/history", {"name": name})


@pytest.mark.parametrize(
    ("method", "path", "version"),
    [
        ("GET", "/nowhere", (1, 55)),
        ("GET", "", (1, 55)),
        ("GET", "/", (1, 55)),
        ("PATCH", "/info", (1, 55)),
        ("GET", "/containers/a/b/c", (1, 55)),
        ("GET", "/containers//json", (1, 55)),
        ("GET", "/images/a/attestations", (1, 54)),
    ],
)
def test_what_has_no_route_is_a_page_not_found(method: str, path: str, version: tuple[int, int]) -> None:
    with pytest.raises(NotFound, match="page not found"):
        router().find(method, path, version)
