#!/bin/bash
# A tour of what shell scripts do: the output is compared line by line.
set -u

section() { printf '== %s\n' "$*"; }

section arithmetic
for ((i = 0; i < 10; i++)); do printf '%d ' $((i * i % 7)); done; echo
echo $((1 << 40)) $((0x7fffffffffffffff + 1)) $((-7 / 2)) $((-7 % 3)) $((017)) $((36#zz)) $((5 ** 13))
declare -i total=0
for word in 3 1 4 1 5 9 2 6; do total+=word; done
echo "total $total"
(( total > 30 )) && echo big || echo small
collatz() {
    local n=$1 steps=0
    while ((n != 1)); do
        ((n % 2 ? (n = 3 * n + 1) : (n /= 2)))
        ((steps++))
    done
    echo $steps
}
for n in 27 97 871; do echo "collatz $n: $(collatz $n)"; done

section parameters
path=/usr/share/doc/bash/copyright.gz
echo "${path##*/} ${path%/*} ${path%%.*} ${path/share/lib} ${#path}"
echo "${path:5:5}" "${path: -3}" "${path^^}" "${unset:-default}" "${path//[aeiou]/_}"
set -- one 'two words' three
echo "$# $*"; printf '<%s>' "$@"; echo
shift; echo "$1"
IFS=: read -r first rest <<< "a:b:c"; echo "$first / $rest"

section arrays
declare -a list=(delta alpha charlie bravo)
mapfile -t sorted < <(printf '%s\n' "${list[@]}" | sort)
echo "${sorted[*]} (${#sorted[@]})"; echo "${sorted[@]:1:2}"; echo "${!list[@]}"
unset 'list[1]'; echo "${!list[@]}"
declare -A colour=([apple]=green [banana]=yellow [cherry]=red)
for key in $(printf '%s\n' "${!colour[@]}" | sort); do echo "$key is ${colour[$key]}"; done

section pipes
seq 1 1000 | awk '$1 % 3 == 0' | sort -rn | head -n 5 | tr '\n' ' '; echo
printf '%s\n' b a c a b a | sort | uniq -c | sort -k1,1nr -k2 | sed 's/^ *//'
echo hello | { read -r word; echo "read $word"; }
true | false | true; echo "${PIPESTATUS[*]}"
set -o pipefail; false | true; echo "pipefail $?"; set +o pipefail
yes 2>/dev/null | head -n 3; echo "yes ended with ${PIPESTATUS[0]}"

section subshells
variable=outer
( variable=inner; echo "$variable"; exit 3 ); echo "$? $variable"
echo "$(echo "nested $(echo "deep $(echo deeper)")")"
diff <(printf '1\n2\n3\n') <(printf '1\n3\n'); echo "diff $?"
(cd /usr && pwd); [[ $PWD != /usr ]] && echo "still in our folder"
exec 3> third; echo "to the third" >&3; exec 3>&-; cat third
{ echo out; echo err >&2; } 2>&1 | sort

section here-documents
cat <<END
sum $((2 + 3)) $(echo command) ${variable}
END
cat <<'END'
nothing $((2 + 3)) $(is) ${expanded}
END
cat <<-END
	tabs are gone
	END
while read -r name value; do printf '%-6s|%4d|\n' "$name" "$value"; done <<END
one 1
twenty 20
three 300
END

section functions
fibonacci() { (($1 < 2)) && { echo "$1"; return; }; echo $(($(fibonacci $(($1 - 1))) + $(fibonacci $(($1 - 2))))); }
echo "fibonacci $(fibonacci "${DEPTH:-7}")"
fails() { return 42; }
fails; echo "status $?"
scope() { local variable=local; inner; }; inner() { echo "sees $variable"; }; scope; inner

section tests
for what in /etc/passwd /usr /nonexistent; do
    if [[ -d $what ]]; then echo "$what: folder"; elif [[ -f $what ]]; then echo "$what: file"; else echo "$what: nothing"; fi
done
[[ "release-12.5" =~ ^([a-z]+)-([0-9]+)\.([0-9]+)$ ]] && echo "${BASH_REMATCH[@]}"
case "file.tar.gz" in *.zip) echo zip ;; *.tar.*) echo tar ;;& *.gz) echo gz ;; esac
[ 10 -gt 9 ] && [ "10" \< "9" ] && echo "numbers and strings differ"
shopt -s extglob; [[ aabb == +(a)+(b) ]] && echo extglob
echo {a..e} {1..10..3} x{1,2}{a,b}

section traps
(trap 'echo "exit trap, status $?"' EXIT; exit 5); echo "left with $?"
bash -c 'trap "echo got TERM; exit 9" TERM; kill -TERM $$; echo not reached'; echo "status $?"
trap 'echo "got USR1"' USR1; kill -USR1 $$; trap - USR1
(set -e; false; echo not reached); echo "set -e gave $?"
bash -c 'kill -KILL $$'; echo "killed: $?"
trap 'echo "line fails"' ERR; false; trap - ERR

section jobs
for i in 1 2 3 4; do (sleep 0.0$i; echo "$i" > job$i; exit "$i") & pids[i]=$!; done
for i in 1 2 3 4; do wait "${pids[i]}"; echo "job $i: status $?, wrote $(cat job$i)"; done
coproc upper { while read -r line; do echo "${line^^}"; done; }
echo quiet >&"${upper[1]}"; read -r answer <&"${upper[0]}"; echo "coprocess says $answer"
eval "exec ${upper[1]}>&-"; wait
mkfifo fifo; (echo through the pipe > fifo) & read -r line < fifo; echo "$line"; wait; rm fifo

section printf
printf '%05d|%x|%o|%e|%-8s|%8s|%c|%%|%q\n' 42 255 8 12345.678 left right char "two words"
printf '%s %s\n' a b c d; printf '%b' 'tab\there\n'; printf '%(%Y-%m-%d %H:%M)T\n' 1700000000
printf -v kept '%03d' 7; echo "$kept"

section quoting
echo "a  b" 'c  $d' e\ f $'tab\tand \x41 \u00e9' "back\`tick"
eval 'echo "evaluated $((6 * 7))"'
array=("has space" "has*star"); for item in "${array[@]}"; do echo "[$item]"; done
touch 'name with space' plain; for file in n* p*; do echo "file: $file"; done; rm 'name with space' plain

section files
mkdir -p a/b/c; echo x > a/b/c/file; ln -s b/c a/link; cat a/link/file; readlink a/link
chmod 640 a/b/c/file; stat -c '%a %s %F' a/b/c/file; find a | sort; mv a/b/c/file a/moved; cat a/moved
[[ a/moved -nt /nonexistent ]] && echo newer; umask 027; : > masked; stat -c %a masked

section loops
n=0; until ((n >= 3)); do ((n++)); ((n == 2)) && continue; echo "until $n"; done
for i in 1 2 3; do for j in 1 2 3; do ((i * j == 4)) && break 2; echo "$i$j"; done; done
i=0; while read -r line; do ((i++)); done < <(seq "${LINES_READ:-300}"); echo "$i lines"
select choice in red green; do echo "chose $choice"; break; done <<< 2 2>/dev/null
