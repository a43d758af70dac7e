# The kubelet sets some sysctls of the whole machine and ends where it cannot. It gets a mount namespace of its own in
# which files that hold those values already stand for them; all other mounts go on to reach the host.
mount --make-rprivate /proc
for file in "$1"/*; do
    target=/proc/sys/$(basename "$file" | tr . /)
    if [ -e "$target" ]; then mount -o bind "$file" "$target"; fi
done
shift
exec "$@"
