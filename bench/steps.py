"""The steps of a start and of an exec that `bench.trace` shows: function by function, in each process."""

from bench.marks import Step

ENGINE = tuple(
    Step(f"hafen.{module}", name, label)
    for module, name, label in (
        ("api.app", "Api.__call__", "api: request"),
        ("engine.create", "Creator.create", "engine: create"),
        ("engine.start", "Starter.start", "engine: start"),
        ("engine.start", "Starter._spawn", "engine: from mounts to shim"),
        ("engine.mounting", "Mounting.mounts", "engine: mount points"),
        ("engine.start", "Starter._network_namespace", "engine: network namespace"),
        ("engine.networks", "Networks.attach_all", "engine: join networks, files of /etc"),
        ("engine.networks", "Networks._attach", "engine: one network"),
        ("engine.networks", "Networks._write_files", "engine: files of /etc"),
        ("engine.specgen", "build", "engine: OCI configuration"),
        ("engine.start", "Starter._request", "engine: seccomp, JSON shape"),
        ("engine.shimlink", "_write_run_dir", "engine: config.json, seccomp.bpf"),
        ("engine.zygote", "Zygote.shim", "engine: take an idle shim"),
        ("engine.shimlink", "Shim._start", "engine: wait for the shim"),
        ("engine.records", "Containers.transit", "engine: state to the database"),
        ("engine.exits", "Exits.exited", "engine: record the exit"),
        ("engine.remove", "Remover.delete", "engine: delete the container"),
        ("engine.exec", "Execs.create", "engine: exec create"),
        ("engine.exec", "ExecSession.run", "engine: exec session"),
        ("engine.exec", "Execs.run", "engine: exec start"),
        ("engine.exec", "Execs._process", "engine: OCI process"),
        ("engine.shimlink", "Shim.exec", "engine: wait for the shim"),
    )
)

LEAN = tuple(
    Step(f"hafen.{module}", name, label)
    for module, name, label in (
        ("shim.zygote", "Zygote._fork", "zygote: fork"),
        ("shim.protocol", "spawn_from_wire", "shim: decode the request"),
        ("shim.main", "Shim._spawn", "shim: spawn"),
        ("shim.main", "Shim._spawned", "shim: container runs"),
        ("shim.main", "Shim._exec", "shim: exec"),
        ("shim.files", "write_json", "shim: write a file"),
        ("shim.main", "Shim._finish", "shim: the container has ended"),
        ("shim.main", "Shim._clean_up", "shim: clean up"),
        ("kernel.cgroup_v1", "CgroupV1.kill", "shim: kill the cgroup"),
        ("kernel.cgroup_v1", "CgroupV1.remove", "shim: remove the cgroup"),
        ("kernel.cgroup_v1", "CgroupV1.oom_kills", "shim: count OOM kills"),
        ("shim.setup", "read_config", "shim: read config.json"),
        ("shim.setup", "perform", "shim: set the container up"),
        ("shim.setup", "begin_exec", "shim: make the exec's process"),
        ("shim.setup", "_seccomp", "shim: read seccomp.bpf"),
        ("spec.runtime_config", "from_json", "shim: decode config.json"),
        ("runtime.resources", "impose", "shim: limits"),
        ("logs.local", "LocalWriter.__init__", "shim: open the log"),
    )
)
