# The table of a virtual machine's console. Fails where a case failed, did not run, or the machine did not reach its end.
{ sub(/\r$/, "") }
$1 == "PLAN" { planned += $2 }
$1 == "CASE" { printf "%-20s %-75s %-6s %7d ms\n", $2, $3, $4, $5; run++; failed += $4 != "ok" }
$1 == "END" { ended = 1 }
$1 != "PLAN" && $1 != "CASE" && $1 != "END" { print "    " $0 }
END {
    printf "%d of %d cases ran, %d failed, %d s with %s, building the machine included\n", run, planned, failed, seconds, accel
    if (!ended) print "the machine did not reach its end"
    exit !(ended && run && run == planned && !failed)
}
