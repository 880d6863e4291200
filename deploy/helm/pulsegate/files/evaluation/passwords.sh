# Gives each role of bootstrap.sql the password in the file of its name. Sourced by the image once the cluster is made.
for file in /run/roles/*; do
    echo 'ALTER ROLE :"role" PASSWORD :'"'password'"';' |
        psql --set=ON_ERROR_STOP=1 --set=role="$(basename "$file")" --set=password="$(cat "$file")" \
            --username=postgres --dbname=pulsegate --quiet
done
