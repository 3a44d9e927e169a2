# Ends what lived in the folder $1 and removes it. Runs as `sh -c`, in a process group of its own.
#
# Waits first: standard input is a pipe whose other end only the owner holds, so it closes when the owner is gone, however it
# went. Then every process whose working directory lies in the folder is killed; the harness starts all of them there, and
# PostgreSQL's backends, which leave the process group, stay there too. $2 is `keep` if the folder shall stay for reading.
trap '' HUP INT TERM QUIT
folder=$1
keep=$2
while read -r _; do :; done

kill_all() {
  found=1
  for process in /proc/[0-9]*; do
    where=$(readlink "$process/cwd" 2>/dev/null) || continue
    case "$where" in
      "$folder" | "$folder"/*)
        kill -9 "${process#/proc/}" 2>/dev/null
        found=0
        ;;
    esac
  done
  return $found
}

passes=0
while kill_all && [ "$passes" -lt 100 ]; do
  passes=$((passes + 1))
  sleep 0.1
done

# A killed PostgreSQL leaves its System V memory segment; the seventh line of postmaster.pid names it.
for pidfile in "$folder"/*/data/postmaster.pid; do
  [ -f "$pidfile" ] || continue
  segment=$(sed -n '7s/^ *[0-9][0-9]*  *\([0-9][0-9]*\) *$/\1/p' "$pidfile")
  [ -n "$segment" ] && ipcrm -m "$segment" 2>/dev/null
done

# A small disk that a test filled is mounted where its server had the data.
for data in "$folder"/*/data; do
  mountpoint -q "$data" 2>/dev/null && umount --lazy "$data"
done

[ "$keep" = keep ] || rm -rf -- "$folder"
