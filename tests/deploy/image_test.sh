#!/usr/bin/env bash
# image_test.sh BIN MODEL WORK [full]: builds the image and runs it as deploy/kubernetes does: read-only root, no
# capabilities, its numeric user, models mounted read-only.
#   BIN: directory of the programs; MODEL: what make_model.sh has made; WORK: directory for files of this run, beside
#   which the base image is kept
#   full: compile in the image's build stage; otherwise the programs in BIN are packed (target prebuilt)
#
# With a Docker engine if one runs, else with podman as root, in a storage of its own under WORK. Base image: the
# engine's debian:bookworm-slim, or one made by mmdebstrap from the Debian mirror that this machine uses.
set -euo pipefail
source "$(dirname "$0")/common.sh"
bin=$(realpath "$1") model=$(realpath "$2") work=$3 kind=${4:-prebuilt}
need curl python3 readelf dpkg-query
dockerfile=$repository/deploy/docker/Dockerfile
base=debian:bookworm-slim
image=hilomoe-image-test:$kind
container=hilomoe-image-test-$$

mkdir -p "$work"
work=$(realpath "$work")
base_tar=$(dirname "$work")/debian_base.tar
base_imported=no
build=() run=()
if docker info >/dev/null 2>&1; then
  engine=(docker)
else
  for program in podman buildah mmdebstrap; do
    command -v "$program" >/dev/null ||
      skip "no Docker engine runs, and $program is not installed (Debian: podman buildah runc mmdebstrap)"
  done
  [ "$(id -u)" -eq 0 ] || skip "no Docker engine runs, and podman needs root here"
  driver=vfs
  if grep -qw overlay /proc/filesystems && [ "$(stat -f -c %T "$work")" != overlayfs ]; then driver=overlay; fi
  # Not under WORK: paths of sockets are short. Programs of a container need limits that its parent may give.
  runroot=$(mktemp -d /tmp/hilomoe_image_test.XXXXXX)
  engine=(podman --root "$work/storage" --runroot "$runroot" --storage-driver "$driver" --cgroup-manager cgroupfs)
  if command -v runc >/dev/null; then engine+=(--runtime runc); fi
  build=(--isolation chroot --pull=never)
  run=(--read-only-tmpfs=false --ulimit nofile=4096:4096 --ulimit nproc=4096:4096)
fi

clean_up() {
  "${engine[@]}" rm -f "$container" >/dev/null 2>&1 || true
  "${engine[@]}" rmi -f "$image" >/dev/null 2>&1 || true
  if [ "$base_imported" = yes ]; then "${engine[@]}" rmi "$base" >/dev/null 2>&1 || true; fi
  if [ "${engine[0]}" = podman ]; then
    "${engine[@]}" rm -af >/dev/null 2>&1 || true
    umount -l "$work/storage/overlay" 2>/dev/null || true
    rm -rf "$work/storage" "$runroot"
  fi
  end_started
}
trap clean_up EXIT

# step NAME COMMAND...: with its output in a log, and its time.
step() {
  local start=$SECONDS name=$1
  shift
  if ! "$@" >"$work/$name.log" 2>&1; then
    tail -30 "$work/$name.log" >&2
    fail "$name; the whole output is in $work/$name.log"
  fi
  echo "$name: $((SECONDS - start)) s"
}

# Kept from run to run, as nothing of the project is in it.
make_base() {
  local sources apt_options
  if [ -s "$base_tar" ]; then return; fi
  mapfile -t sources < <(apt-get indextargets --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' \
    'Created-By: Packages' 'Origin: Debian' | grep ' bookworm' | sort -u)
  # What the mirror needs, and leaving out what Debian's own slim images leave out.
  mapfile -t apt_options < <(apt-config dump | grep -E '^Acquire::(http|https)::Proxy |^Acquire::Check-' || true)
  mmdebstrap --variant=minbase "${apt_options[@]/#/--aptopt=}" \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    bookworm "$work/base.tar" "${sources[@]}"
  mv "$work/base.tar" "$base_tar"
}
if ! "${engine[@]}" image inspect "$base" >/dev/null 2>&1; then
  step base make_base
  step import "${engine[@]}" import "$base_tar" "$base"
  base_imported=yes
fi

context=$work/context
build+=(--network host -t "$image" -f "$dockerfile")
if [ "$kind" = full ]; then
  step build_full "${engine[@]}" build "${build[@]}" "$repository"
else
  rm -rf "$context"
  mkdir -p "$context"
  cp "$bin/hilomoe-server" "$bin/hilomoe-client" "$context"
  step build_prebuilt "${engine[@]}" build "${build[@]}" --target prebuilt "$context"
fi
echo "image: $(($("${engine[@]}" image inspect -f '{{.Size}}' "$image") / 1000000)) MB"

echo "== packages"
# The libraries that the programs name, and the packages that hold them, as the Dockerfile lists them.
needed=$(for program in hilomoe-server hilomoe-client; do
  readelf -d "$bin/$program" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p'
done | sort -u)
packages=$(for library in $needed; do
  path=$(ldd "$bin/hilomoe-server" "$bin/hilomoe-client" | awk -v name="$library" '$1 == name { print $3; exit }')
  dpkg-query -S "$(realpath "$path")" 2>/dev/null || dpkg-query -S "$path"
done | cut -d: -f1 | sort -u | grep -vxE 'libc6|libgcc-s1|libstdc\+\+6')  # part of every Debian with apt
listed=$(sed -n '/ AS runtime/,/^LABEL/s/^        \([a-z][a-z0-9.+-]*\) \\$/\1/p' "$dockerfile" | sort -u)
diff <(echo "$packages") <(echo "$listed") ||
  fail "the Dockerfile's packages (>) are not those of the programs' libraries (<)"
echo "$(wc -w <<<"$listed") packages as the libraries ask for"

echo "== run"
read -r listen_port metrics_port < <(free_ports 2)
start=$(date +%s%N)
"${engine[@]}" run -d --name "$container" --network host --read-only --cap-drop ALL --security-opt no-new-privileges \
  "${run[@]}" -v "$model/models:/models:ro" "$image" --model_repository=/models \
  --listen_address="127.0.0.1:$listen_port" --metrics_address="127.0.0.1:$metrics_port" --drain_ms=500 >/dev/null
logs() { "${engine[@]}" logs "$container" 2>&1 | tail -5; }
ready() {
  [ "$("${engine[@]}" inspect -f '{{.State.Running}}' "$container")" = true ] || fail "the container has ended: $(logs)"
  health "http://127.0.0.1:$listen_port" hilomoe.v1.ScoringService
}
wait_for 60 "readiness" ready
echo "ready after $((($(date +%s%N) - start) / 1000000)) ms"

pid=$("${engine[@]}" inspect -f '{{.State.Pid}}' "$container")
status() { awk -v name="$1:" '$1 == name { print $2 }' "/proc/$pid/status"; }
[ "$(tr '\0' '\n' <"/proc/$pid/cmdline" | head -1)" = /usr/bin/hilomoe-server ] || fail "process 1 is not the server"
[ "$(status Uid)" = 65532 ] || fail "the server runs as user $(status Uid)"
[ "$(status CapEff)" = 0000000000000000 ] || fail "the server has capabilities $(status CapEff)"
[ "$(status NoNewPrivs)" = 1 ] || fail "the server may gain privileges"
awk '$5 == "/" { print $6 }' "/proc/$pid/mountinfo" | grep -qw ro || fail "the root is writable"
for directory in / /tmp /var/tmp /models; do
  if "${engine[@]}" exec "$container" touch "$directory/x" 2>/dev/null; then fail "$directory is writable"; fi
done
echo "user 65532, no capabilities, read-only root"

rows=$(($(wc -l <"$model/request.csv") - 1))
"$bin/hilomoe-client" score --server="127.0.0.1:$listen_port" --output="$work/scores.csv" "$model/request.csv" \
  2>"$work/client.log" || fail "hilomoe-client: $(tail -1 "$work/client.log")"
compare_scores "$model/request_scores.csv" "$work/scores.csv" "$rows"
counted=$(curl -sS "http://127.0.0.1:$metrics_port/metrics" |
  awk '/^hilomoe_requests_total/ && /method="Score"/ && /code="OK"/ { n += $2 } END { print n }')
[ "$counted" = 1 ] || fail "expected one scored request, hilomoe_requests_total says $counted"
"${engine[@]}" exec "$container" hilomoe-client --help >/dev/null || fail "hilomoe-client does not run in the image"

echo "== stop"
start=$(date +%s%N)
"${engine[@]}" kill -s TERM "$container" >/dev/null
code=$(timeout 60 "${engine[@]}" wait "$container") || fail "the server has not ended after 60 s"
[ "$code" = 0 ] || fail "exit code $code on SIGTERM: $(logs)"
echo "exit code 0 after $((($(date +%s%N) - start) / 1000000)) ms"

# The image's own entry point and arguments, with nothing mounted: one line that says what is wrong, and not 0.
if "${engine[@]}" run --rm --network host --read-only "${run[@]}" "$image" >"$work/empty.log" 2>&1; then
  fail "the server starts without a model"
fi
grep -q "'/models' holds no model" "$work/empty.log" || fail "without a model: $(tail -3 "$work/empty.log")"
